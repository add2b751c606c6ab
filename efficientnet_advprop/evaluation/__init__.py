"""What a network scores, on clean images and others."""
