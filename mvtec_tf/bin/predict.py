"""Judges image files with an exported model, here or on a server, and writes one row for each.

python -m mvtec_tf.bin.predict --model=saved_models/NAME/VERSION --out=FILE.csv PATH...
python -m mvtec_tf.bin.predict --server=grpc://HOST:8500/NAME --out=FILE.jsonl PATH...
python -m mvtec_tf.bin.predict --model=saved_models/NAME/VERSION --out=FILE.csv --watch=FOLDER

PATH is a file, a folder or a pattern in quotes. The columns are those that `evaluate` reads, path,category,defect,
label,split,group,score,probability, and threshold,model,verdict,sha256,error; what is not known is empty. A file that
cannot be judged is listed with its reason and does not stop the rest. Exit status: 0 all were judged, 1 some could not
be, 2 wrong use. The same command goes on with a table that was interrupted, and a finished one gets the rows of new
files, and new rows of changed ones.
"""

from mvtec_tf.bin import entry
from mvtec_tf.serving.settings import PredictSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.serving.predict.predict", PredictSettings)
