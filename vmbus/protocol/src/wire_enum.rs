//! Enumerations of numbers on the wire.

/// Declares an enumeration of numbers on the wire: `ALL`, `number()` and `from_number()` come from
/// one list, so that they cannot disagree.
///
/// ```
/// vmbus_protocol::wire_enum! {
///     /// The state of a door.
///     pub enum Door: u16 {
///         /// It is open.
///         Open = 1,
///         /// It is closed.
///         Closed = 0x0200,
///     }
/// }
/// assert_eq!(Door::Closed.number(), 0x0200);
/// assert_eq!(Door::from_number(1), Some(Door::Open));
/// assert_eq!(Door::from_number(2), None);
/// assert_eq!(Door::ALL, [Door::Open, Door::Closed]);
/// ```
#[macro_export]
macro_rules! wire_enum {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident: $number:ident {
            $($(#[$variant_attribute:meta])* $variant:ident = $value:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr($number)]
        $visibility enum $name { $($(#[$variant_attribute])* $variant = $value,)+ }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: [Self; [$(Self::$variant,)+].len()] = [$(Self::$variant,)+];

            /// Returns the number on the wire.
            #[must_use]
            #[allow(clippy::as_conversions)]
            pub const fn number(self) -> $number {
                self as $number
            }

            /// Returns the one with this number; `None` if the number is unknown.
            #[must_use]
            pub const fn from_number(number: $number) -> Option<Self> {
                match number {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
