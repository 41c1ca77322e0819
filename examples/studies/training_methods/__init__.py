"""Every training method with the same network, images and number of passes: which certifies most?"""
