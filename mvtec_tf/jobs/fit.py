"""Fitting a light head on a frozen encoder with few labels or none, and judging it on images that nobody has seen."""

from collections.abc import Sequence

from mvtec_tf.data import protocol
from mvtec_tf.data.protocol import Cut
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.jobs import checks, encoders, judging, opening, probe, probe_features, recipes, study_head, unlabelled
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.study import protocol as study


def fit(said: FitSettings) -> RunDirectory:
    """Fits, exports and judges a head, or goes on where a stopped call left off.

    Args:
      said: what is asked for; what is left unsaid is the recipe's, the encoder's, or the default.

    Returns:
      The finished run.

    Raises:
      UsageError: settings contradict each other.
      UserError: images, encoder or features cannot be used.
    """
    settings, head, budget = checks.of_fit(said)
    maps = head.needs_maps
    named = [] if settings.encoder is None else [encoders.resolve_encoder(settings.encoder)]
    limit = encoders.max_pixels(settings.max_pixels, named)
    records, skipped = opening.usable_by_file(settings, opening.scan(settings), limit)
    labels_used = None
    if settings.is_study:
        cut, labels_used = study.probe_cut(records, budget, settings.seed, settings.allow_leak)
    elif settings.is_one_class:
        cut = protocol.one_class(records)
    else:
        cut = protocol.clean(records, budget, settings.seed)
    recent, left_out = unlabelled.find(settings.unlabelled, cut, limit, settings.on_bad_image)
    # Before the run directory is made: a wrong name leaves nothing behind.
    source = probe_features.find_source(settings.encoder, settings.features, maps)
    if source is not None:
        settings = _settled(settings, said, source)
    # The study's head is kept in its graph alone.
    results = opening.RESULTS if settings.is_study else (*opening.RESULTS, "head.npz")
    with opening.opened("fit_probe", settings, records, (*skipped, *left_out), results, recent) as run:
        if run.finished:
            return run
        if source is None:
            encoder, words = encoders.encoder_of(settings, run.path / "encoder", records)
            run.note(network={"weights": words})
            source = probe_features.Source(encoder)
        features = source.features(
            run,
            cut,
            lambda stages: recipes.feature_settings(settings, stages, maps),
            evaluated=settings.is_study or settings.study_head,
        )
        _fit_and_judge(run, settings, head, features, cut, labels_used, recent)
        judging.finish(run)
        return run


def _settled(settings: FitSettings, said: FitSettings, source: probe_features.Source) -> FitSettings:
    if source.store is None:
        return recipes.settled(settings, said, source.card, f"`encoder`={settings.encoder}")
    recipes.check_store(settings, settings.features, source.store.key, source.untrained)
    return recipes.settled(settings, said, source.card, f"`features`={settings.features}", source.store.key)


def _fit_and_judge(
    run: RunDirectory,
    settings: FitSettings,
    head: HeadSettings,
    features: probe_features.Features,
    cut: Cut,
    labels_used: int | None,
    recent: Sequence[str],
) -> None:
    if settings.is_study:
        run.note(labels_used=labels_used)
        study_head.fit_and_judge_by_the_study(run, settings, features, labels_used)
        return
    probe.fit_and_judge(run, settings, features, head, recent)
    if settings.study_head and cut.labelled:
        study_head.fit_and_judge_study_head(run, settings, features)
