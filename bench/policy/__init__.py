"""The default policy beside simple ones on streams whose drift is known, on small real tables and on streams that are awkward."""
