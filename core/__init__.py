"""What every room shares, and what none of ours is imported by.

A closed list: a module comes in only when two rooms need it.

- The world outside, each thing behind a small class: `settings`, `logging`, `metrics` (prometheus_client),
  `bus` (redis, broadcaster), `hub` (huggingface_hub), `storage` (the weights volume),
  `exchange` (two names swapped in one step, for it).
- The pure rules of the domain: `errors`, `ids`, `version`, `token`, `repository` and `names` (what may be called
  what), `selection` (which files of a repository a server needs), `manifest` (what stands in a set on disk),
  `crashpoints` (the steps of an install, by name),
  `job` and `weight_set` (their kinds and states), `event` (what the journal tells), `runtime_settings` and
  `download_windows` (what may be set while the server runs, and when downloads may run).
"""
