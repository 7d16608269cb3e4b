"""What runs on the device: Python 3.8, importing nothing of edgepack. The host sends these files, and imports none."""
