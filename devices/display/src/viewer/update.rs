//! Updates of a viewer's screen.

use super::running::{Running, Update};
use super::shared::Shared;
use crate::encode::{Encoding, Key, TIGHT_MAX_HEIGHT, TIGHT_MAX_WIDTH};
use crate::protocol::{Area, UpdateWriter};
use crate::segments::{Cover, SegmentSet};

/// Bytes of raw rectangles from which on they are written to the viewer.
const RAW_BYTES: usize = 64 << 10;

impl Running {
    /// Begins an update, if the viewer lacks something. Returns whether it does.
    pub(super) fn begin_update(&mut self, shared: &Shared<'_>, out: &mut Vec<u8>) -> bool {
        let canvas = (shared.canvas.width(), shared.canvas.height());
        if self.size != canvas && self.can_resize() {
            self.tell_new_size(canvas, out);
            return true;
        }
        let mut others = Vec::new();
        let mut count = self.write_others(shared, &mut others);
        count += self.write_moves(shared, &mut others);
        let areas = self.take_areas(canvas);
        let total = count + areas.len();
        if total == 0 {
            return false;
        }
        self.request = None;
        UpdateWriter::begin(out, u16::try_from(total).unwrap_or(u16::MAX));
        out.append(&mut others);
        shared.counters.rectangles.add(total);
        self.update = Update(areas.into_iter().take(usize::from(u16::MAX) - count).collect());
        true
    }

    /// Encodes the next rectangle of the update in progress, if one is left.
    pub(super) fn encode_next(&mut self, shared: &mut Shared<'_>, out: &mut Vec<u8>) {
        if self.encoding == Encoding::Raw {
            self.encode_raw(shared, out);
            return;
        }
        let Some(area) = self.update.0.pop_front() else { return };
        UpdateWriter::resume(out).head(area, self.encoding.number());
        let key = Key {
            area,
            changed: shared.canvas.changed_at(area),
            encoding: self.encoding,
            format: self.writer.format(),
            level: self.level,
        };
        let cached = shared.cache.as_ref().and_then(|cache| cache.get(&key));
        if let Some(encoded) = cached {
            shared.counters.shared_rectangles.add(1);
            encoded.append(&mut self.streams, out);
            return;
        }
        let canvas = shared.canvas;
        let encoded = shared.encoder.encode(
            |pixels| canvas.read(area, pixels),
            usize::from(area.width),
            self.encoding,
            &self.writer,
            self.level,
        );
        encoded.append(&mut self.streams, out);
        if let Some(cache) = &mut shared.cache {
            cache.insert(key, encoded);
        }
    }

    /// Appends the next rectangles of the update in progress as they are, which is as fast as a
    /// copy from the cache: as many as are written together.
    fn encode_raw(&mut self, shared: &mut Shared<'_>, out: &mut Vec<u8>) {
        let canvas = shared.canvas;
        let end = out.len() + RAW_BYTES;
        while out.len() < end
            && let Some(area) = self.update.0.pop_front()
        {
            UpdateWriter::resume(out).head(area, self.encoding.number());
            shared.encoder.encode_raw(|pixels| canvas.read(area, pixels), &self.writer, out);
        }
    }

    fn can_resize(&self) -> bool {
        self.abilities.desktop_size || self.abilities.extended_desktop_size
    }

    fn tell_new_size(&mut self, (width, height): (u16, u16), out: &mut Vec<u8>) {
        self.size = (width, height);
        self.is_cut = false;
        self.request = None;
        let mut writer = UpdateWriter::begin(out, 1);
        match self.abilities.extended_desktop_size {
            true => writer.extended_desktop_size(0, 0, width, height),
            false => writer.desktop_size(width, height),
        }
    }

    /// Writes rectangles that are no pixels of the screen, and returns their number.
    fn write_others(&mut self, shared: &Shared<'_>, out: &mut Vec<u8>) -> usize {
        let mut count = 0;
        let mut writer = UpdateWriter::resume(out);
        if std::mem::take(&mut self.announces_keys) {
            writer.extended_keys();
            count += 1;
        }
        if std::mem::take(&mut self.announces_buttons) {
            writer.extended_buttons();
            count += 1;
        }
        for (reason, status) in std::mem::take(&mut self.sizes) {
            if self.abilities.extended_desktop_size {
                writer.extended_desktop_size(reason, status, self.size.0, self.size.1);
                count += 1;
            }
        }
        let leds = shared.input.reported_leds();
        if let Some(leds) = leds.filter(|leds| self.abilities.leds && self.leds != Some(*leds)) {
            self.leds = Some(leds);
            writer.leds(leds);
            count += 1;
        }
        let knows_shapes = self.abilities.cursor || self.abilities.cursor_with_alpha;
        if std::mem::take(&mut self.is_shape_changed) && knows_shapes {
            let pointer = shared.screen.pointer();
            // A guest that has sent no shape leaves the viewer its own pointer.
            self.has_shape |= pointer.shape.is_some();
            let shape = pointer.shape.as_ref().filter(|_| pointer.is_visible);
            if self.has_shape {
                match self.abilities.cursor_with_alpha {
                    true => writer.cursor_with_alpha(shape),
                    false => writer.cursor(shape, &self.writer),
                }
                count += 1;
            }
        }
        if std::mem::take(&mut self.is_pointer_moved) && self.abilities.pointer_position {
            let pointer = shared.screen.pointer();
            if pointer.is_visible {
                let clamp = |at: i32, size: u16| {
                    u16::try_from(at.max(0)).unwrap_or(u16::MAX).min(size.saturating_sub(1))
                };
                let (width, height) = self.size;
                writer.pointer_position(clamp(pointer.x, width), clamp(pointer.y, height));
                count += 1;
            }
        }
        count
    }

    /// Writes the moves that wait, if the viewer wants all of what they change, and returns their
    /// number.
    fn write_moves(&mut self, shared: &Shared<'_>, out: &mut Vec<u8>) -> usize {
        let canvas = (shared.canvas.width(), shared.canvas.height());
        let wanted = [self.request, self.continuous].into_iter().flatten();
        let is_wanted = |area: Area| wanted.clone().any(|one| one.contains(area));
        if !self.follows_moves(canvas) || !self.moves.iter().all(|one| is_wanted(one.area)) {
            self.drop_moves();
        }
        let count = self.moves.len();
        for one in self.moves.drain(..) {
            UpdateWriter::resume(out).copy(one.area, one.area.x, one.from);
        }
        shared.counters.copied_rectangles.add(count);
        count
    }

    /// Returns rectangles that cover the segments that the viewer lacks and wants.
    fn take_areas(&mut self, (width, height): (u16, u16)) -> Vec<Area> {
        let cover = match self.encoding {
            Encoding::Raw => Cover::Exact,
            Encoding::Zrle | Encoding::Tight => Cover::Few,
        };
        let areas = match std::mem::take(&mut self.is_cut) {
            true => {
                // What is beyond the canvas is black.
                self.dirty = SegmentSet::new(width, height);
                let (width, height) = self.size;
                SegmentSet::full(width, height).into_areas(width, height, cover)
            }
            false => {
                let mut wanted = SegmentSet::new(width, height);
                for area in [self.request, self.continuous].into_iter().flatten() {
                    wanted.add_all(&self.dirty.take_area(area));
                }
                wanted.into_areas(width, height, cover)
            }
        };
        let (columns, rows) = match self.encoding {
            Encoding::Tight => (TIGHT_MAX_WIDTH, TIGHT_MAX_HEIGHT),
            Encoding::Raw | Encoding::Zrle => (u16::MAX, u16::MAX),
        };
        areas
            .into_iter()
            .map(|area| area.clipped(self.size.0, self.size.1))
            .flat_map(|area| area.split(columns, rows))
            .filter(|area| area.pixels() != 0)
            .collect()
    }
}
