"""From folders of images to records, protocols and `tf.data`. Imports no other room."""
