"""The HTML page of a run or a study: one file, no script, no request. Charts are Vega-Lite dicts."""
