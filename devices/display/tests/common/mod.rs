//! What the tests share: a guest with a screen, and a small RFB client.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod client;
pub(crate) mod guest;

use client::{Client, pair};
use synthvm_display::{DisplayServer, Security};

impl Client {
    /// Becomes a viewer of `server`, without a password.
    pub(crate) fn view(server: &DisplayServer) -> Self {
        let (mine, theirs) = pair();
        server.add_viewer(theirs, Security::none());
        Self::connect(mine)
    }
}
