//! Persistent reservations (SPC-3 section 5.6; spec storvsc section 6.6).
//!
//! A disk has one initiator, the guest, over any number of channels, so a reservation never denies
//! a read or a write. Clusters and multipath software inspect the registrations, the type of the
//! reservation, and the conflicts.
//!
//! The state lives as long as the VM: resets of the guest, its channels or the unit do not change
//! it. It does not survive a loss of power, and REPORT CAPABILITIES says so. A registration with
//! APTPL, which asks for that, is nevertheless accepted, against the letter of the standard:
//! Linux's own interface for reservations (linux/pr.h) always sets it and would not work otherwise,
//! and no state is lost, as a loss of power ends the only initiator as well as the disk.

use super::fields::be64;
use super::{CheckCondition, Sense};
use crate::saved::SavedReservations;

/// Bytes of PERSISTENT RESERVE OUT's parameter list.
pub(super) const LIST_LEN: u32 = 24;

/// Scope of a reservation: the logical unit. There is no other.
const SCOPE_UNIT: u8 = 0;

/// SPEC_I_PT and ALL_TG_PT of the parameter list: other initiators and ports, which the disk does
/// not have.
const NOT_SUPPORTED: u8 = 0x0C;

/// Length of the guest's TransportID.
const TRANSPORT_ID_LEN: usize = 24;

/// The service actions of PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the standard's names")]
pub enum ReserveIn {
    ReadKeys,
    ReadReservation,
    ReportCapabilities,
    ReadFullStatus,
}

impl ReserveIn {
    /// Returns the action that the CDB's service action means.
    pub(super) fn from_action(action: u8) -> Result<Self, CheckCondition> {
        Ok(match action {
            0 => Self::ReadKeys,
            1 => Self::ReadReservation,
            2 => Self::ReportCapabilities,
            3 => Self::ReadFullStatus,
            _ => return Err(CheckCondition::INVALID_FIELD),
        })
    }
}

/// The service actions of PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the standard's names")]
pub enum ReserveOut {
    /// REGISTER, or REGISTER AND IGNORE EXISTING KEY.
    Register {
        ignore_key: bool,
    },
    Reserve(Type),
    Release(Type),
    Clear,
    /// PREEMPT, with or without abort: all tasks belong to the preempting initiator, which does not
    /// abort its own.
    Preempt(Type),
}

impl ReserveOut {
    /// Returns the action that the CDB's service action, scope and type mean.
    pub(super) fn from_action(action: u8, scope_type: u8) -> Result<Self, CheckCondition> {
        Ok(match action {
            0 => Self::Register { ignore_key: false },
            1 => Self::Reserve(Type::from_byte(scope_type)?),
            2 => Self::Release(Type::from_byte(scope_type)?),
            3 => Self::Clear,
            4 | 5 => Self::Preempt(Type::from_byte(scope_type)?),
            6 => Self::Register { ignore_key: true },
            // Action 7, REGISTER AND MOVE, needs a second initiator.
            _ => return Err(CheckCondition::INVALID_FIELD),
        })
    }
}

/// Type of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type(u8);

impl Type {
    /// Write exclusive and exclusive access; each also in its forms "registrants only" and "all
    /// registrants".
    const KNOWN: [u8; 6] = [1, 3, 5, 6, 7, 8];

    fn from_byte(scope_type: u8) -> Result<Self, CheckCondition> {
        let (scope, kind) = (scope_type >> 4, scope_type & 0x0F);
        if scope == SCOPE_UNIT && Self::KNOWN.contains(&kind) {
            Ok(Self(kind))
        } else {
            Err(CheckCondition::INVALID_FIELD)
        }
    }

    /// Returns whether every registrant holds a reservation of this type. Its key is then not
    /// reported.
    fn is_of_all(self) -> bool {
        self.0 >= 7
    }
}

/// The outcome of a PERSISTENT RESERVE OUT that is no check condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Conflict,
}

/// The registrations and the reservation of one disk. A key of 0 means "not registered".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reservations {
    generation: u32,
    key: u64,
    held: Option<Type>,
}

/// The fields of PERSISTENT RESERVE OUT's parameter list that this disk uses.
struct List {
    key: u64,
    new_key: u64,
}

impl Reservations {
    /// Executes PERSISTENT RESERVE OUT with its parameter list of [`LIST_LEN`] bytes.
    pub(super) fn execute(
        &mut self,
        action: ReserveOut,
        list: &[u8],
    ) -> Result<Verdict, CheckCondition> {
        if list[20] & NOT_SUPPORTED != 0 {
            return Err(CheckCondition::invalid(Sense::INVALID_FIELD_IN_PARAMETERS));
        }
        let list = List { key: be64(list, 0), new_key: be64(list, 8) };
        match action {
            ReserveOut::Register { ignore_key } => Ok(self.register(&list, ignore_key)),
            // All other actions are for registrants only, which prove their registration by the
            // key.
            _ if self.key == 0 || self.key != list.key => Ok(Verdict::Conflict),
            ReserveOut::Reserve(kind) => Ok(self.reserve(kind)),
            ReserveOut::Release(kind) => self.release(kind),
            ReserveOut::Clear => {
                self.unregister();
                self.changed();
                Ok(Verdict::Good)
            }
            ReserveOut::Preempt(kind) => self.preempt(kind, list.new_key),
        }
    }

    fn register(&mut self, list: &List, ignore_key: bool) -> Verdict {
        if !ignore_key && list.key != self.key {
            return Verdict::Conflict;
        }
        match (self.key, list.new_key) {
            (0, 0) => return Verdict::Good,
            (_, 0) => self.unregister(),
            (_, new) => self.key = new,
        }
        self.changed();
        Verdict::Good
    }

    fn reserve(&mut self, kind: Type) -> Verdict {
        if *self.held.get_or_insert(kind) == kind { Verdict::Good } else { Verdict::Conflict }
    }

    fn release(&mut self, kind: Type) -> Result<Verdict, CheckCondition> {
        if self.held.is_some_and(|held| held != kind) {
            return Err(CheckCondition::invalid(Sense::INVALID_RELEASE));
        }
        self.held = None;
        Ok(Verdict::Good)
    }

    /// Preempts. The initiator's own registration is the only one that it can preempt.
    fn preempt(&mut self, kind: Type, victim: u64) -> Result<Verdict, CheckCondition> {
        match self.held {
            // Key 0 names all other registrants. A reservation of all registrants then becomes the
            // initiator's own.
            Some(held) if victim == 0 && held.is_of_all() => self.held = Some(kind),
            _ if victim == 0 => {
                return Err(CheckCondition::invalid(Sense::INVALID_FIELD_IN_PARAMETERS));
            }
            _ if victim != self.key => return Ok(Verdict::Conflict),
            // The holder preempts itself: the type changes while the reservation stays held.
            Some(held) if !held.is_of_all() => self.held = Some(kind),
            _ => self.unregister(),
        }
        self.changed();
        Ok(Verdict::Good)
    }

    /// Returns the state that another process needs to resume with these reservations.
    pub(super) fn saved(&self) -> SavedReservations {
        let Self { generation, key, held } = *self;
        SavedReservations { generation, key, held: held.map(|kind| kind.0) }
    }

    /// Returns the reservations in `saved`. `None`: that state is impossible.
    pub(super) fn restored(saved: SavedReservations) -> Option<Self> {
        let SavedReservations { generation, key, held } = saved;
        let held = match held {
            None => None,
            Some(kind) => Some(Type::from_byte(kind).ok().filter(|_| key != 0)?),
        };
        Some(Self { generation, key, held })
    }

    /// Removes the registration, and the reservation with it.
    fn unregister(&mut self) {
        self.key = 0;
        self.held = None;
    }

    fn changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Appends the whole answer to PERSISTENT RESERVE IN. `guid` is the GUID of the disk, from
    /// which the name of the guest's port is made.
    pub(super) fn report(&self, what: ReserveIn, guid: &[u8; 16], out: &mut Vec<u8>) {
        let start = out.len();
        if what == ReserveIn::ReportCapabilities {
            out.extend_from_slice(&CAPABILITIES);
            return;
        }
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        match what {
            ReserveIn::ReadKeys if self.key != 0 => out.extend_from_slice(&self.key.to_be_bytes()),
            ReserveIn::ReadReservation => self.read_reservation(out),
            ReserveIn::ReadFullStatus if self.key != 0 => self.read_full_status(guid, out),
            _ => {}
        }
        let length = (out.len() - start - 8) as u32;
        out[start + 4..start + 8].copy_from_slice(&length.to_be_bytes());
    }

    fn read_reservation(&self, out: &mut Vec<u8>) {
        let Some(held) = self.held else { return };
        let key = if held.is_of_all() { 0 } else { self.key };
        out.extend_from_slice(&key.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, 0, 0, SCOPE_UNIT << 4 | held.0, 0, 0]);
    }

    fn read_full_status(&self, guid: &[u8; 16], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        // Bit 0: the registrant holds the reservation.
        out.push(self.held.is_some().into());
        out.push(self.held.map_or(0, |held| SCOPE_UNIT << 4 | held.0));
        out.extend_from_slice(&[0; 4]);
        // Relative target port 1.
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&(TRANSPORT_ID_LEN as u32).to_be_bytes());
        // A TransportID of SCSI over SAS: format 0, protocol 6, an address of 8 bytes at 4.
        let mut transport = [0; TRANSPORT_ID_LEN];
        transport[0] = 0x06;
        transport[4] = 0x50;
        transport[5..12].copy_from_slice(&guid[9..]);
        out.extend_from_slice(&transport);
    }
}

/// REPORT CAPABILITIES: RESERVE(6) and RELEASE(6) are compatible (CRH), no state survives a loss of
/// power (PTPL_C and PTPL_A are 0), the type mask is valid (TMV), and all six types are supported.
const CAPABILITIES: [u8; 8] = [0, 8, 0x10, 0x80, 0xEA, 0x01, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE_EXCLUSIVE: Type = Type(1);
    const ALL_REGISTRANTS: Type = Type(7);
    const REGISTER: ReserveOut = ReserveOut::Register { ignore_key: false };
    const IGNORE: ReserveOut = ReserveOut::Register { ignore_key: true };

    fn run(
        state: &mut Reservations,
        action: ReserveOut,
        key: u64,
        new_key: u64,
    ) -> Result<Verdict, CheckCondition> {
        let mut list = [0; LIST_LEN as usize];
        list[..8].copy_from_slice(&key.to_be_bytes());
        list[8..16].copy_from_slice(&new_key.to_be_bytes());
        state.execute(action, &list)
    }

    fn registered() -> Reservations {
        Reservations { generation: 1, key: 0xA, held: None }
    }

    fn holding(kind: Type) -> Reservations {
        Reservations { held: Some(kind), ..registered() }
    }

    const GOOD: Result<Verdict, CheckCondition> = Ok(Verdict::Good);
    const CONFLICT: Result<Verdict, CheckCondition> = Ok(Verdict::Conflict);

    /// Checks one row: from a state, by an action with two keys, to a result and a state.
    #[test]
    fn test_every_action_in_every_state_ends_as_the_standard_says() {
        use ReserveOut::{Clear, Preempt, Release, Reserve};
        let none = Reservations::default();
        let we = WRITE_EXCLUSIVE;
        let all = ALL_REGISTRANTS;
        let next = |state: Reservations| Reservations { generation: state.generation + 1, ..state };
        let parameter = Err(CheckCondition::invalid(Sense::INVALID_FIELD_IN_PARAMETERS));
        let release = Err(CheckCondition::invalid(Sense::INVALID_RELEASE));
        let gone = Reservations { generation: 2, key: 0, held: None };
        let rows = [
            (none, REGISTER, 0, 0xA, GOOD, registered()),
            (none, REGISTER, 0xB, 0xA, CONFLICT, none),
            (none, REGISTER, 0, 0, GOOD, none),
            (none, IGNORE, 0xDEAD, 0xA, GOOD, registered()),
            (none, Reserve(we), 0, 0, CONFLICT, none),
            (none, Release(we), 0, 0, CONFLICT, none),
            (none, Clear, 0, 0, CONFLICT, none),
            (none, Preempt(we), 0, 0xA, CONFLICT, none),
            (
                registered(),
                REGISTER,
                0xA,
                0xB,
                GOOD,
                Reservations { key: 0xB, ..next(registered()) },
            ),
            (registered(), REGISTER, 0xB, 0xC, CONFLICT, registered()),
            (registered(), REGISTER, 0xA, 0, GOOD, gone),
            (registered(), IGNORE, 0, 0, GOOD, gone),
            (registered(), Reserve(we), 0xA, 0, GOOD, holding(we)),
            (registered(), Reserve(we), 0xB, 0, CONFLICT, registered()),
            (registered(), Release(we), 0xA, 0, GOOD, registered()),
            (registered(), Clear, 0xA, 0, GOOD, gone),
            (registered(), Preempt(we), 0xA, 0xA, GOOD, gone),
            (registered(), Preempt(we), 0xA, 0xB, CONFLICT, registered()),
            (registered(), Preempt(we), 0xA, 0, parameter, registered()),
            (holding(we), Reserve(we), 0xA, 0, GOOD, holding(we)),
            (holding(we), Reserve(Type(3)), 0xA, 0, CONFLICT, holding(we)),
            (holding(we), Release(we), 0xA, 0, GOOD, registered()),
            (holding(we), Release(Type(3)), 0xA, 0, release, holding(we)),
            (holding(we), Release(we), 0xB, 0, CONFLICT, holding(we)),
            (holding(we), Clear, 0xA, 0, GOOD, gone),
            (holding(we), Preempt(all), 0xA, 0xA, GOOD, next(holding(all))),
            (holding(we), Preempt(all), 0xA, 0xB, CONFLICT, holding(we)),
            (holding(we), REGISTER, 0xA, 0, GOOD, gone),
            (holding(we), REGISTER, 0xA, 0xB, GOOD, Reservations { key: 0xB, ..next(holding(we)) }),
            (holding(all), Preempt(we), 0xA, 0, GOOD, next(holding(we))),
            (holding(all), Preempt(we), 0xA, 0xA, GOOD, gone),
        ];
        for (index, (before, action, key, new_key, result, after)) in rows.into_iter().enumerate() {
            let mut state = before;
            assert_eq!(run(&mut state, action, key, new_key), result, "row {index}");
            assert_eq!(state, after, "row {index}");
        }
    }

    #[test]
    fn test_other_initiators_and_ports_cannot_be_registered() {
        for flag in [0x04, 0x08] {
            let mut list = [0; LIST_LEN as usize];
            list[20] = flag;
            let refused = Reservations::default().execute(IGNORE, &list).unwrap_err();
            assert_eq!(refused.sense, Sense::INVALID_FIELD_IN_PARAMETERS);
        }
    }

    #[test]
    fn test_registration_as_linux_asks_for_it_through_a_loss_of_power_is_taken() {
        let mut list = [0; LIST_LEN as usize];
        list[8..16].copy_from_slice(&0xA_u64.to_be_bytes());
        // APTPL.
        list[20] = 1;
        for action in [REGISTER, IGNORE] {
            let mut state = Reservations::default();
            assert_eq!(state.execute(action, &list), GOOD);
            assert_eq!(state, registered());
        }
    }

    #[test]
    fn test_reports_show_key_holder_and_generation() {
        let report = |state: &Reservations, what| {
            let mut out = Vec::new();
            state.report(what, &[7; 16], &mut out);
            out
        };
        let none = Reservations::default();
        for what in [ReserveIn::ReadKeys, ReserveIn::ReadReservation, ReserveIn::ReadFullStatus] {
            assert_eq!(report(&none, what), [0; 8]);
        }
        let state = holding(WRITE_EXCLUSIVE);
        assert_eq!(
            report(&state, ReserveIn::ReadKeys),
            [0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0xA]
        );
        let reservation = report(&state, ReserveIn::ReadReservation);
        assert_eq!(
            (reservation.len(), reservation[7], reservation[15], reservation[21]),
            (24, 16, 0xA, 1)
        );
        let shared = report(&holding(ALL_REGISTRANTS), ReserveIn::ReadReservation);
        assert_eq!((shared[15], shared[21]), (0, 7));
        let full = report(&state, ReserveIn::ReadFullStatus);
        assert_eq!((full.len(), full[7], full[15], full[20], full[21]), (56, 48, 0xA, 1, 1));
        assert_eq!((full[27], full[31], full[32]), (1, 24, 6));
        let capabilities = report(&none, ReserveIn::ReportCapabilities);
        let (compatible, through_power_loss, activated) = (0x10, 0x01, 0x01);
        assert_eq!((capabilities.len(), capabilities[1]), (8, 8));
        assert_eq!(capabilities[2] & (compatible | through_power_loss), compatible);
        assert_eq!(capabilities[3] & activated, 0);
    }
}
