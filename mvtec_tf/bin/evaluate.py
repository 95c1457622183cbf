"""Judges a table of predictions of any model: figures, pictures and a report that opens anywhere.

python -m mvtec_tf.bin.evaluate --predictions=FILE.csv --out=DIR [--threshold=X | --target_recall=0.95 ...]

The table needs the columns path,label,score (label 1 = defective, a higher score = more defective),
optionally category, defect, split (pretrain, fit, calibrate or evaluate; without it every row is
judged), group and probability. Only evaluate rows are judged. The predictions.csv of a run or of an export, and what
predict wrote, are judged with the threshold and costs that these say, unless a flag says otherwise.
Neither model nor images are needed; with --data_dir the most confident mistakes are shown, with
--heatmaps it is measured how well they find the defect, and with --features the embedding is drawn.
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import JudgeSettings


def main(settings: JudgeSettings) -> None:
    from mvtec_tf.evaluation.report import summary
    from mvtec_tf.jobs.judge import judge_table

    document = judge_table(settings)
    print(document["summary"])
    print(summary.text_table(document))
    print(settings.out)


if __name__ == "__main__":
    entry.run(main, JudgeSettings, JudgeSettings.check_threshold)
