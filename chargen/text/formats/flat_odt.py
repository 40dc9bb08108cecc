"""The text of an OpenDocument text that is one XML file (.fodt)."""

from chargen.text.formats.odt import read_flat as read

__all__ = ["read"]
