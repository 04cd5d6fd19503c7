//! The state machine of a session (RFC 5880 section 6.2), driven by the states that the peer tells.

use crate::wire::bfd::State;

/// The state of a session after a packet that tells the peer's (RFC 5880 section 6.8.6).
///
/// | own \ told | AdminDown | Down | Init | Up |
/// |---|---|---|---|---|
/// | AdminDown | AdminDown | AdminDown | AdminDown | AdminDown |
/// | Down | Down | Init | Up | Down |
/// | Init | Down | Init | Up | Up |
/// | Up | Down | Down | Up | Up |
pub fn after(own: State, told: State) -> State {
    match (own, told) {
        (State::AdminDown, _) => State::AdminDown,
        (_, State::AdminDown) | (State::Down, State::Up) | (State::Up, State::Down) => State::Down,
        (State::Down | State::Init, State::Down) => State::Init,
        (_, State::Init) | (State::Init | State::Up, State::Up) => State::Up,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{AdminDown, Down, Init, Up};

    #[test]
    fn every_state_follows_every_word_as_in_the_table() {
        let table = [
            (AdminDown, [AdminDown, AdminDown, AdminDown, AdminDown]),
            (Down, [Down, Init, Up, Down]),
            (Init, [Down, Init, Up, Up]),
            (Up, [Down, Down, Up, Up]),
        ];
        for (own, expected) in table {
            assert_eq!(State::ALL.map(|told| after(own, told)), expected, "{own:?}");
        }
    }
}
