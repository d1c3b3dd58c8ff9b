//! The sequencer: what a source holds of the hub. Drafts get their positions here, in the order in which they are appended.
