"""Every training method with the same network, images and number of passes: which certifies most?"""

from examples.studies.command import main


if __name__ == "__main__":
    main(__package__, __doc__)
