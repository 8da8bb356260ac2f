"""Animatable 3-D Gaussian animals from one casual video: a nerfstudio method plugin."""

__version__ = "0.1.0"
