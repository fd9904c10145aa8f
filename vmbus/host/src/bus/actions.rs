//! The core's actions.

use std::io;

use tracing::{error, warn};

use super::doorbells::ring;
use super::lock::lock;
use super::state::{Inner, Job, Link, State};
use crate::core::{Action, ChannelKey};

impl Inner {
    /// Carries out the core's actions, and the actions that follow from them.
    pub(super) fn act(&self, state: &mut State) {
        let mut actions = std::mem::take(&mut state.actions);
        loop {
            state.core.take_actions(&mut actions);
            if actions.is_empty() {
                break;
            }
            for action in actions.drain(..) {
                self.act_one(state, action);
            }
        }
        state.actions = actions;
    }

    fn act_one(&self, state: &mut State, action: Action) {
        match action {
            Action::Post { vp, sint, message } => self.deliver(state, vp, sint, &message),
            Action::DiscardMessages => {
                self.synic.discard_messages();
                if let Some(held) = &mut state.held {
                    held.clear();
                }
            }
            Action::Bind { key, connection_id } => self.bind(state, key, connection_id),
            Action::Unbind { key, connection_id } => {
                state.links.remove(&key);
                if self.doorbells.retire(connection_id) {
                    self.pump.add_job(Job::Unbind { connection_id });
                }
            }
            Action::Open { key, params } => self.request_open(state, key, params),
            Action::Reopen { key, params, state: saved } => {
                self.request_reopen(state, key, params, saved);
            }
            Action::Signal { key } => {
                if let Some(link) = state.links.get(&key) {
                    if let Some(open) = &link.open {
                        open.signal();
                    }
                    // The guest may have written before the device had the channel: make the device
                    // check once.
                    ring(&link.doorbell);
                }
            }
            Action::Wake { key } => {
                if let Some(link) = state.links.get(&key) {
                    ring(&link.doorbell);
                }
            }
            Action::Retarget { key, vp } => {
                if let Some(open) = state.links.get(&key).and_then(|link| link.open.as_ref()) {
                    open.retarget(vp);
                }
            }
            Action::Close { key } => {
                // Without an open channel, the device has just released it, and its `Closed` is
                // queued.
                if let Some(Link { doorbell, open: Some(open) }) = state.links.get(&key) {
                    open.begin_close();
                    ring(doorbell);
                }
            }
            Action::Connect(request) => {
                let taken = self.connects.get().is_some_and(|handler| handler.connect(request));
                if !taken {
                    state.core.refuse_connect(request);
                }
            }
            Action::Removed { key } => {
                if let Some(device) = state.devices.remove(&key) {
                    self.pump.add_job(Job::Drop(device));
                }
            }
            Action::Quiesced => {
                *lock(&self.resets_done) = state.resets;
                self.reset_done.notify_all();
            }
        }
    }

    fn bind(&self, state: &mut State, key: ChannelKey, connection_id: u32) {
        match self.doorbells.bind(&*self.synic, connection_id) {
            Ok(bound) => {
                if let Some(error) = bound.refused {
                    self.log_slow_doorbell(connection_id, &error);
                }
                state.links.insert(key, Link { doorbell: bound.event, open: None });
            }
            Err(error) => self.failed_doorbells.log(|suppressed| {
                error!(
                    %error,
                    connection_id,
                    suppressed,
                    "no doorbell for a channel: opening it will fail (out of file descriptors?)"
                );
            }),
        }
    }

    /// Logs that the machine did not bind or unbind a doorbell in the kernel.
    pub(super) fn log_slow_doorbell(&self, connection_id: u32, error: &io::Error) {
        self.failed_doorbells.log(|suppressed| {
            warn!(%error, connection_id, suppressed, "signals of this channel leave the kernel");
        });
    }
}
