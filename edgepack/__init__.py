"""edgepack takes a trained TensorFlow model to a small computer and proves on the device that it works."""
