"""Parts that several models share: rotary positions, attention masks, sequence parallelism.

Tensor names end in their axes, outermost first: ``x_BTHWC``, ``keys_BGPE``. This is the one legend
of ``models/``; a file that needs a letter for itself says so at its top.

| letter | axis |
| --- | --- |
| B | clip, video or sequence in the batch |
| C | channel: 3 colours (RGB) at the pixel end, features elsewhere |
| F | frame of a video, where latent frames are near; else T |
| T | latent frame, or frame where no latents are near |
| H, W | row, column |
| L | video token: T, H, W in raster order |
| S | token of a sequence, or new token beside P |
| P | token so far (past and new), or token of a rank's stretch |
| D | width of the model, or of an embedding |
| N | query head; in the codec and in scores, a feature or frame of any clip |
| G | key-value head |
| E | channel of a head |
| V | id that may come next |
| K | entry of a codebook, or candidate that is kept |
| R | rank |
"""
