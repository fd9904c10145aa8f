//! What the tests share: a guest with a screen, and a small RFB client.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod client;
pub(crate) mod guest;
