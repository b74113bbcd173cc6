"""NRRD, MetaImage and GIPL files, read and written by SimpleITK."""
