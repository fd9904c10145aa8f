//! Pointer events of a viewer as reports of the guest's mouse.

use synthvm_input::protocol::mouse::{Buttons, Report, coordinate};

/// Bits of a viewer's button mask.
const WHEEL_UP: u16 = 1 << 3;
const WHEEL_DOWN: u16 = 1 << 4;
const BUTTONS: [(u16, Buttons); 5] = [
    (1 << 0, Buttons::LEFT),
    (1 << 1, Buttons::MIDDLE),
    (1 << 2, Buttons::RIGHT),
    (1 << 7, Buttons::EXTRA_1),
    (1 << 8, Buttons::EXTRA_2),
];

/// The pointer of a viewer.
#[derive(Debug, Default)]
pub(crate) struct ViewerPointer {
    mask: u16,
    x: u16,
    y: u16,
}

impl ViewerPointer {
    /// Returns the report of an event at a pixel of a screen of `size` pixels. A step of the wheel
    /// is a button that is pressed; its release says nothing.
    pub(crate) fn event(&mut self, mask: u16, x: u16, y: u16, size: (u16, u16)) -> Report {
        let pressed = mask & !self.mask;
        let step = |bit: u16| i16::from(pressed & bit != 0);
        *self = Self { mask, x, y };
        Report { wheel: step(WHEEL_UP) - step(WHEEL_DOWN), ..self.report(size) }
    }

    /// Returns the report that releases all buttons. `None`: none is pressed.
    pub(crate) fn release_all(&mut self, size: (u16, u16)) -> Option<Report> {
        let has_buttons = !self.report(size).buttons.is_empty();
        self.mask = 0;
        has_buttons.then(|| self.report(size))
    }

    fn report(&self, (width, height): (u16, u16)) -> Report {
        let buttons = BUTTONS.into_iter().filter(|(bit, _)| self.mask & bit != 0);
        Report {
            buttons: buttons.map(|(_, button)| button).collect(),
            x: coordinate(self.x.into(), width.into()),
            y: coordinate(self.y.into(), height.into()),
            wheel: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u16, u16) = (640, 480);

    #[test]
    fn test_buttons_of_a_viewer_are_those_of_the_mouse() {
        let mut pointer = ViewerPointer::default();
        let mut buttons = |mask| pointer.event(mask, 0, 0, SIZE).buttons;
        assert_eq!(buttons(0b1), Buttons::LEFT);
        assert_eq!(buttons(0b10), Buttons::MIDDLE);
        assert_eq!(buttons(0b100), Buttons::RIGHT);
        assert_eq!(buttons(0x180), Buttons::EXTRA_1 | Buttons::EXTRA_2);
        assert_eq!(buttons(0x60), Buttons::empty(), "the horizontal wheel has no counterpart");
    }

    #[test]
    fn test_wheel_turns_by_presses_only() {
        let mut pointer = ViewerPointer::default();
        let wheel: Vec<_> = [0, 8, 8, 0, 8, 16, 0]
            .map(|mask| pointer.event(mask, 5, 5, SIZE).wheel)
            .into_iter()
            .collect();
        assert_eq!(wheel, [0, 1, 0, 0, 1, -1, 0]);
    }

    #[test]
    fn test_corners_and_pixels_beyond_them_are_the_ends_of_the_axes() {
        let mut pointer = ViewerPointer::default();
        let mut at = |x, y| {
            let report = pointer.event(0, x, y, SIZE);
            (report.x, report.y)
        };
        assert_eq!(at(0, 0), (0, 0));
        assert_eq!(at(639, 479), (32767, 32767));
        assert_eq!(at(u16::MAX, u16::MAX), (32767, 32767));
    }

    #[test]
    fn test_release_all_releases_pressed_buttons_where_they_are() {
        let mut pointer = ViewerPointer::default();
        pointer.event(1, 639, 0, SIZE);
        let expected = Report { x: 32767, ..Report::default() };
        assert_eq!(pointer.release_all(SIZE), Some(expected));
        assert_eq!(pointer.release_all(SIZE), None);
    }
}
