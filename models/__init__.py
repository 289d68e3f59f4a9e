"""The models in plain torch: no Ray, no DeepSpeed, no files but weights."""
