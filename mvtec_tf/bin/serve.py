"""Serves the page of a line: an operator shows it a part, sees verdict and heat map, and corrects them.

Needs the extra mvtec_tf[app]. Everything stays on this machine; the page is for this machine alone unless --host names
another address and MVTEC_TF_APP_PASSWORD a password.

Example:
  mvtec-tf serve --models=saved_models --project=results/page
"""

from mvtec_tf.app.settings import ServeSettings
from mvtec_tf.bin import entry

if __name__ == "__main__":
    entry.run("mvtec_tf.app.serve.serve", ServeSettings, ServeSettings.check)
