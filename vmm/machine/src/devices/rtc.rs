//! MC146818 clock and its CMOS memory: the wall clock, memory sizes, and the scratch byte of warm
//! reboots.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::PioDevice;
use crate::RtcBase;
use crate::memory::MemoryLayout;

/// The index port; the data port is the next one.
pub(crate) const PORT: u16 = 0x70;
/// CMOS index of the century, as declared in the FADT.
pub(crate) const CENTURY: u8 = 0x32;

const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const WEEKDAY: u8 = 6;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const STATUS_A: u8 = 0xA;
const STATUS_B: u8 = 0xB;
const STATUS_C: u8 = 0xC;
const STATUS_D: u8 = 0xD;

const A_UPDATING: u8 = 0x80;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const HOUR_PM: u8 = 0x80;
/// RAM and time are valid (the battery is good).
const D_VALID: u8 = 0x80;

/// The clock. Alarms and periodic interrupts can be programmed but never fire: guests have better
/// timers.
pub(crate) struct Rtc {
    state: Mutex<State>,
}

struct State {
    index: u8,
    cmos: [u8; 128],
    /// The guest's clock minus the host's UTC, in seconds.
    offset: i64,
    /// Whether the registers hold a frozen time, in the guest's format, which the guest may still
    /// change before it takes effect.
    staged: bool,
}

impl Rtc {
    /// Returns a clock that shows the host's time in the time zone `base`, with the memory sizes of
    /// `layout` in CMOS.
    pub(crate) fn new(layout: &MemoryLayout, base: RtcBase) -> Rtc {
        let mut cmos = [0; 128];
        cmos[usize::from(STATUS_A)] = 0x26;
        cmos[usize::from(STATUS_B)] = B_24_HOURS;
        cmos[usize::from(STATUS_D)] = D_VALID;
        let mut word = |index: usize, value: u64| {
            let [low, high, ..] = value.min(0xFFFF).to_le_bytes();
            cmos[index] = low;
            cmos[index + 1] = high;
        };
        let low = layout.low_ram.end;
        word(0x15, 640);
        word(0x17, low.saturating_sub(1 << 20) >> 10);
        word(0x30, low.saturating_sub(1 << 20) >> 10);
        word(0x34, low.saturating_sub(16 << 20) >> 16);
        let above = layout.high_ram.len() >> 16;
        cmos[0x5B..0x5E].copy_from_slice(&above.min(0xFF_FFFF).to_le_bytes()[..3]);
        let offset = match base {
            RtcBase::Utc => 0,
            RtcBase::Local => local_offset(now()),
        };
        Rtc { state: Mutex::new(State { index: 0, cmos, offset, staged: false }) }
    }
}

impl PioDevice for Rtc {
    fn read(&self, offset: u16) -> u8 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match offset {
            0 => 0xFF,
            _ => state.read(now()),
        }
    }

    fn write(&self, offset: u16, value: u8) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match offset {
            // Bit 7 masks NMI on real hardware.
            0 => state.index = value & 0x7F,
            _ => state.write(now(), value),
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// Returns the seconds by which the host's local time is ahead of UTC at `now`; 0 if the host does
/// not know.
fn local_offset(now: i64) -> i64 {
    // SAFETY: all zeros are valid values of its integers and of its pointer.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid during the call. It reads TZ in the environment, which this
    // program never writes.
    let found = unsafe { libc::localtime_r(&now, &mut local) };
    if found.is_null() { 0 } else { local.tm_gmtoff }
}

impl State {
    fn register(&self, index: u8) -> u8 {
        self.cmos[usize::from(index)]
    }

    fn read(&self, now: i64) -> u8 {
        match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY if !self.staged => {
                self.encode(self.index, Civil::from_unix(now.saturating_add(self.offset)))
            }
            // Reads take no time, so an update is never in progress.
            STATUS_A => self.register(STATUS_A) & !A_UPDATING,
            STATUS_C => 0,
            index => self.register(index),
        }
    }

    fn write(&mut self, now: i64, value: u8) {
        match self.index {
            STATUS_C | STATUS_D => {}
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => {
                if !self.staged {
                    self.stage(now);
                }
                self.cmos[usize::from(self.index)] = value;
                if self.register(STATUS_B) & B_SET == 0 {
                    self.commit(now);
                }
            }
            STATUS_B => {
                let was = self.register(STATUS_B);
                if was & B_SET == 0 && value & B_SET != 0 {
                    self.stage(now);
                }
                // The staged fields have the format that applied when they were written.
                if value & B_SET == 0 && self.staged {
                    self.commit(now);
                }
                self.cmos[usize::from(STATUS_B)] = value;
            }
            index => self.cmos[usize::from(index)] = value,
        }
    }

    /// Copies the current time to the registers, so that the guest can replace single fields.
    fn stage(&mut self, now: i64) {
        let civil = Civil::from_unix(now.saturating_add(self.offset));
        for index in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
            self.cmos[usize::from(index)] = self.encode(index, civil);
        }
        self.staged = true;
    }

    /// Sets the guest's clock to the time in the registers.
    fn commit(&mut self, now: i64) {
        self.staged = false;
        let field = |index| i64::from(self.decode(self.register(index)));
        let raw = self.register(HOURS);
        let hours = if self.register(STATUS_B) & B_24_HOURS != 0 {
            field(HOURS)
        } else {
            i64::from(self.decode(raw & !HOUR_PM)) % 12 + if raw & HOUR_PM != 0 { 12 } else { 0 }
        };
        let civil = Civil {
            year: field(CENTURY) * 100 + field(YEAR),
            month: field(MONTH).clamp(1, 12),
            day: field(DAY).clamp(1, 31),
            hour: hours.clamp(0, 23),
            minute: field(MINUTES).clamp(0, 59),
            second: field(SECONDS).clamp(0, 59),
        };
        self.offset = civil.to_unix() - now;
    }

    fn encode(&self, index: u8, time: Civil) -> u8 {
        let twelve = self.register(STATUS_B) & B_24_HOURS == 0;
        let value = match index {
            SECONDS => time.second,
            MINUTES => time.minute,
            HOURS if twelve => (time.hour + 11) % 12 + 1,
            HOURS => time.hour,
            WEEKDAY => (time.to_unix().div_euclid(86_400) + 4).rem_euclid(7) + 1,
            DAY => time.day,
            MONTH => time.month,
            YEAR => time.year.rem_euclid(100),
            _ => time.year.div_euclid(100),
        } as u8;
        let coded = if self.register(STATUS_B) & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        };
        if index == HOURS && twelve && time.hour >= 12 { coded | HOUR_PM } else { coded }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.register(STATUS_B) & B_BINARY != 0 {
            value
        } else {
            (value >> 4).wrapping_mul(10).wrapping_add(value & 0xF)
        }
    }
}

/// A date and time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Converts Unix seconds. Years start on 1 March here, so that leap days come last in a year.
    fn from_unix(seconds: i64) -> Civil {
        let days = seconds.div_euclid(86_400) + 719_468;
        let rest = seconds.rem_euclid(86_400);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    fn to_unix(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted = if self.month > 2 { self.month - 3 } else { self.month + 9 };
        let day_of_year = (153 * shifted + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * 86_400 + self.hour * 3_600 + self.minute * 60 + self.second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29 13:05:09 UTC, a Thursday.
    const LEAP: i64 = 1_709_211_909;

    fn state() -> State {
        Rtc::new(&MemoryLayout::new(5 << 30), RtcBase::Utc).state.into_inner().unwrap()
    }

    fn read(state: &mut State, index: u8, now: i64) -> u8 {
        state.index = index;
        state.read(now)
    }

    fn write(state: &mut State, index: u8, value: u8, now: i64) {
        state.index = index;
        state.write(now, value);
    }

    #[test]
    fn test_time_leap_day_in_bcd() {
        let mut state = state();
        let fields: Vec<u8> = [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS]
            .into_iter()
            .map(|index| read(&mut state, index, LEAP))
            .collect();
        assert_eq!(fields, [0x20, 0x24, 0x02, 0x29, 5, 0x13, 0x05, 0x09]);
    }

    #[test]
    fn test_time_twelve_hours_binary() {
        let mut state = state();
        write(&mut state, STATUS_B, B_BINARY, LEAP);
        assert_eq!(read(&mut state, HOURS, LEAP), 1 | HOUR_PM);
        assert_eq!(read(&mut state, HOURS, LEAP - 13 * 3600), 12, "midnight is 12 AM");
        assert_eq!(read(&mut state, MINUTES, LEAP), 5);
    }

    #[test]
    fn test_set_time_moves_the_clock_and_it_runs_on() {
        let mut state = state();
        write(&mut state, STATUS_B, B_24_HOURS | B_SET, LEAP);
        write(&mut state, HOURS, 0x20, LEAP);
        write(&mut state, STATUS_B, B_24_HOURS, LEAP);
        assert_eq!(read(&mut state, HOURS, LEAP + 3600), 0x21);
        assert_eq!(read(&mut state, MINUTES, LEAP), 0x05);
    }

    #[test]
    fn test_time_of_a_local_clock_is_the_hosts() {
        let rtc = Rtc::new(&MemoryLayout::new(5 << 30), RtcBase::Local);
        let offset = rtc.state.into_inner().unwrap().offset;
        let output = std::process::Command::new("date").arg("+%z").output().unwrap();
        let zone: i64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert_eq!(offset, (zone / 100 * 60 + zone % 100) * 60);
    }

    #[test]
    fn test_civil_round_trip_over_centuries() {
        for day in (-200_000..200_000).step_by(37) {
            let seconds = day * 86_400 + 12_345;
            assert_eq!(Civil::from_unix(seconds).to_unix(), seconds);
        }
    }

    #[test]
    fn test_cmos_memory_sizes_and_scratch() {
        let mut state = state();
        assert_eq!(
            [read(&mut state, 0x34, 0), read(&mut state, 0x35, 0)],
            0xBF00_u16.to_le_bytes()
        );
        assert_eq!(
            [read(&mut state, 0x5B, 0), read(&mut state, 0x5C, 0)],
            0x8000_u16.to_le_bytes()
        );
        write(&mut state, 0x0F, 0x0A, 0);
        assert_eq!(read(&mut state, 0x0F, 0), 0x0A);
    }

    #[test]
    fn test_any_write_to_any_register_survives() {
        let mut state = state();
        for index in 0..128 {
            for value in 0..=255 {
                write(&mut state, index, value, LEAP);
                read(&mut state, SECONDS, LEAP);
                read(&mut state, index, LEAP);
            }
        }
    }
}
