"""Networks with few channels, for tests of their structure and of what is done with them."""

from equibit.models import inception, mobilenet, nin, resnet, shallow, shufflenet, vgg, wide_resnet
from equibit.models.parts import conv_norm

FACTOR = 8  # Inception's channel counts are all multiples of it, those of images are below it


def narrow_conv_norm(inputs, outputs, *args, **options):
    return conv_norm(inputs if inputs < FACTOR else inputs // FACTOR, outputs // FACTOR, *args, **options)


def narrow_networks(monkeypatch):
    """Makes every family of networks narrow; depths, kernels and joints stay."""
    monkeypatch.setattr(inception, "conv_norm", narrow_conv_norm)
    monkeypatch.setattr(inception, "FEATURES", inception.FEATURES // FACTOR)
    monkeypatch.setattr(mobilenet, "WIDTHS", tuple(width // FACTOR for width in mobilenet.WIDTHS))
    monkeypatch.setattr(nin, "STEM", 8)
    monkeypatch.setattr(nin, "GROUPS", (((12, 1), (8, 1)), ((16, 5), (16, 1), (16, 1)), ((16, 3), (16, 1))))
    monkeypatch.setattr(resnet, "WIDTHS", (8, 16, 32, 64))
    monkeypatch.setattr(shallow, "WIDTHS", (8, 16, 32, 64))
    monkeypatch.setattr(shallow, "HIDDEN", 32)
    monkeypatch.setattr(shufflenet, "STEM", 12)
    monkeypatch.setattr(shufflenet, "WIDTHS", (24, 48, 96))
    monkeypatch.setattr(vgg, "WIDTHS", (8, 8, 16, 16, 32, 32))
    monkeypatch.setattr(vgg, "WIDTHS_16", ((8, 8), (16, 16), (32, 32, 32), (64, 64, 64), (64, 64, 64)))
    monkeypatch.setattr(vgg, "HIDDEN_16", 48)
    monkeypatch.setattr(wide_resnet, "WIDTHS", (8, 16, 32))
