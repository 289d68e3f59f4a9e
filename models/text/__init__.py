"""Text encoders: captions and prompts to what a generator is conditioned on."""
