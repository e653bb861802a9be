"""Cohort windows come in, verdicts go out.

The statistics of Cordon. The mathematics takes and gives plain numbers; a thin shell translates cohort windows into it
and its results into verdicts with a reason and evidence. Imports `ingest`, never `signals`, `dashboards` or `deploy`.
"""
