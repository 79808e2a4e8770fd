//! The filters that come with the engine.
