//! Fault points: places where a test has the process killed, so that "killed between any two writes" is
//! a fact and not luck.

use std::str::FromStr;

use crate::effects::Effect;

/// When, in the course of an effect, to kill the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the first request is sent.
    Before,
    /// Between the two requests of an effect that needs two.
    Between,
    /// After the API server has answered the last request, before anybody has heard of it.
    After,
}

/// Kills the process with SIGKILL at the n-th effect of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultPoint {
    moment: Moment,
    effect: &'static str,
    /// How many effects of that kind are left, this one included.
    left: u32,
}

impl FaultPoint {
    /// Counts an effect of the given name that has come to `moment`; whether the process must die now.
    pub fn reached(&mut self, moment: Moment, effect: &str) -> bool {
        if self.left == 0 || moment != self.moment || effect != self.effect {
            return false;
        }
        self.left -= 1;
        self.left == 0
    }
}

impl FromStr for FaultPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || {
            format!(
                "'{text}' is not <before|between|after>:<effect>[:n], where effect is one of {}",
                Effect::NAMES.join(", ")
            )
        };
        let mut parts = text.split(':');
        let moment = match parts.next() {
            Some("before") => Moment::Before,
            Some("between") => Moment::Between,
            Some("after") => Moment::After,
            _ => return Err(shape()),
        };
        let name = parts.next().ok_or_else(shape)?;
        let effect = Effect::NAMES.into_iter().find(|known| *known == name).ok_or_else(shape)?;
        let left = match parts.next() {
            Some(number) => number.parse().ok().filter(|number| *number > 0).ok_or_else(shape)?,
            None => 1,
        };
        if parts.next().is_some() {
            return Err(shape());
        }
        Ok(Self { moment, effect, left })
    }
}

/// Ends this process as a power cut would: no destructor runs, the Lease is not given back.
pub(super) fn die(effect: &str, moment: Moment) -> ! {
    tracing::error!(effect, ?moment, "fault point reached: killing this process with SIGKILL");
    // Either of the two ends the process; the second only if the kernel refuses the first.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_create_is_met_and_then_no_more() {
        let mut point: FaultPoint = "before:CreateVirtualIp:2".parse().unwrap();
        assert!(!point.reached(Moment::Before, "CreateVirtualIp"));
        assert!(!point.reached(Moment::After, "CreateVirtualIp"));
        assert!(!point.reached(Moment::Before, "SetIngress"));
        assert!(point.reached(Moment::Before, "CreateVirtualIp"));
        assert!(!point.reached(Moment::Before, "CreateVirtualIp"));
    }

    #[test]
    fn a_mistake_is_answered_with_the_names_that_exist() {
        for bad in
            ["", "before", "during:SetIngress", "after:Nothing", "after:SetIngress:0", "after:SetIngress:1:1"]
        {
            assert!(bad.parse::<FaultPoint>().unwrap_err().contains("SetConditions"), "{bad}");
        }
    }
}
