"""The networks that come with cropray, a line each; a registered model carries them."""

from cropray.nets import crop_net, ltae, temp_cnn, tsvit, utae

__all__ = ["crop_net", "ltae", "temp_cnn", "tsvit", "utae"]
