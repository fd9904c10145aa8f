//! OIDs.
