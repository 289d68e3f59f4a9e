"""Losses that codecs share: LPIPS, and a 3-D PatchGAN discriminator with LeCam regularisation."""
