"""What runs on the device: Python 3.8, importing nothing of edgepack. The host reads these files, it never imports them."""
