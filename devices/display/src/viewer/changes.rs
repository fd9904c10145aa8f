//! Changes of the canvas, as what a viewer has not got.

use super::running::Running;
use crate::canvas::Refreshed;
use crate::segments::SegmentSet;

/// Moves that wait for an update, above which what they change is sent as pixels.
const MAX_MOVES: usize = 32;

impl Running {
    /// Returns whether the viewer can copy moved areas on a canvas of this size.
    pub(crate) fn follows_moves(&self, canvas: (u16, u16)) -> bool {
        // What the update in progress sends is no longer dirty, but not yet sent.
        self.abilities.copy_rect && self.update.is_empty() && !self.is_cut && self.size == canvas
    }

    /// Notes what has changed on a canvas of this size, which is that of before.
    pub(crate) fn add_changes(&mut self, refreshed: &Refreshed, canvas: (u16, u16)) {
        let Refreshed { changed, moves, rest, .. } = refreshed;
        let sources = moves.iter().map(|one| self.dirty.count_area(one.source()));
        // It does not pay to move what must be sent anyway.
        if !self.follows_moves(canvas) || sources.sum::<usize>() > changed.count() / 2 {
            self.dirty.add_all(changed);
            return;
        }
        moves.iter().for_each(|one| self.dirty.apply(*one));
        self.moves.extend(moves);
        self.dirty.add_all(rest);
        if self.moves.len() > MAX_MOVES {
            self.drop_moves();
        }
    }

    /// Sends pixels instead of the moves that wait.
    pub(super) fn drop_moves(&mut self) {
        // Elsewhere the moves have changed nothing.
        self.moves.drain(..).for_each(|one| self.dirty.add_area(one.area));
    }

    /// Notes that the canvas has another size.
    pub(crate) fn resize(&mut self, width: u16, height: u16) {
        self.moves.clear();
        self.dirty = SegmentSet::full(width, height);
        self.is_cut = true;
    }
}
