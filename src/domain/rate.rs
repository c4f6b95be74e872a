//! How often something may be asked: in the long run, and at once.

use std::{fmt, str::FromStr, time::Duration};

/// The highest rate that can be set. Above it the interval of two requests is no longer exact to a
/// thousandth of itself.
pub const PER_SECOND_MAX: u32 = 100_000;
/// The longest window: how long it may take until a burst that was used up is whole again.
pub const WINDOW_MAX: Duration = Duration::from_secs(10 * 60);

/// So many a second in the long run, and so many at once. Written `100/200`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

/// Why two numbers are no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not two numbers.
    #[error("{0:?} is not a rate, such as 100/200: so many a second, and so many at once")]
    Malformed(String),
    /// None at all, or more than can be counted.
    #[error("{0} a second is not between 1 and {PER_SECOND_MAX}")]
    PerSecond(u32),
    /// None at once, or so many that they are never whole again.
    #[error("{burst} at once is not between 1 and {max}, which is ten minutes at that rate")]
    Burst {
        /// What was asked for.
        burst: u32,
        /// What is the most at that rate.
        max: u32,
    },
}

impl Rate {
    /// So many a second, and so many at once.
    pub fn new(per_second: u32, burst: u32) -> Result<Self, RateError> {
        if !(1..=PER_SECOND_MAX).contains(&per_second) {
            return Err(RateError::PerSecond(per_second));
        }
        let window = u32::try_from(WINDOW_MAX.as_secs()).unwrap_or(u32::MAX);
        let max = per_second.saturating_mul(window);
        match burst {
            burst if (1..=max).contains(&burst) => Ok(Self { per_second, burst }),
            burst => Err(RateError::Burst { burst, max }),
        }
    }

    /// How many in a second, in the long run.
    pub const fn per_second(self) -> u32 {
        self.per_second
    }

    /// How many at once, after a rest.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// After how long one more is allowed.
    pub fn interval(self) -> Duration {
        // The rate is at least one.
        Duration::from_secs(1).checked_div(self.per_second).unwrap_or(Duration::from_secs(1))
    }

    /// Whole seconds after which a burst that was used up is whole again.
    pub const fn window_seconds(self) -> u32 {
        self.burst.div_ceil(self.per_second)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let read = || {
            let (per_second, burst) = text.split_once('/')?;
            Some((number(per_second)?, number(burst)?))
        };
        let (per_second, burst) = read().ok_or_else(|| RateError::Malformed(text.to_owned()))?;
        Self::new(per_second, burst)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.per_second, self.burst)
    }
}

/// What is asked, as far as rates tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateClass {
    /// `/verify`.
    Verify,
    /// `/settle`.
    Settle,
    /// Everything else that needs a key.
    Read,
}

/// No class has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not verify, settle or read")]
pub struct UnknownRateClass(String);

impl RateClass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Verify, Self::Settle, Self::Read];

    /// The word in settings, in the database and in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Settle => "settle",
            Self::Read => "read",
        }
    }

    /// The class of that name.
    pub fn parse(word: &str) -> Result<Self, UnknownRateClass> {
        let found = Self::ALL.into_iter().find(|class| class.as_str() == word);
        found.ok_or_else(|| UnknownRateClass(word.to_owned()))
    }
}

/// The rates of a merchant that the operator gave it in place of the default ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnRates {
    /// Of `/verify`.
    pub verify: Option<Rate>,
    /// Of `/settle`.
    pub settle: Option<Rate>,
    /// Of everything else.
    pub read: Option<Rate>,
}

impl OwnRates {
    /// The rate of one class, if it is the merchant's own.
    pub const fn of(&self, class: RateClass) -> Option<Rate> {
        match class {
            RateClass::Verify => self.verify,
            RateClass::Settle => self.settle,
            RateClass::Read => self.read,
        }
    }

    /// Those that are its own.
    pub fn own(&self) -> impl Iterator<Item = (RateClass, Rate)> {
        let rates = *self;
        RateClass::ALL.into_iter().filter_map(move |class| Some((class, rates.of(class)?)))
    }

    /// These, with another one for a class.
    #[must_use]
    pub const fn with(mut self, class: RateClass, rate: Option<Rate>) -> Self {
        match class {
            RateClass::Verify => self.verify = rate,
            RateClass::Settle => self.settle = rate,
            RateClass::Read => self.read = rate,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{OwnRates, PER_SECOND_MAX, Rate, RateClass, RateError};

    #[test]
    fn a_rate_is_read_as_it_is_written_within_its_limits() {
        for text in ["1/1", "1/600", "100/200", "100000/60000000"] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("0/1".parse::<Rate>(), Err(RateError::PerSecond(0)));
        assert_eq!("100001/1".parse::<Rate>(), Err(RateError::PerSecond(PER_SECOND_MAX + 1)));
        assert_eq!("1/0".parse::<Rate>(), Err(RateError::Burst { burst: 0, max: 600 }));
        assert_eq!("2/1201".parse::<Rate>(), Err(RateError::Burst { burst: 1201, max: 1200 }));
        for text in ["", "1", "1/", "/1", "1/2/3", "-1/2", "1.5/2", "a/b", "5000000000/1"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Malformed(text.to_owned())));
        }
    }

    #[test]
    fn a_rate_knows_its_interval_and_its_window() {
        for (text, interval, window) in [
            ("1/1", Duration::from_secs(1), 1),
            ("2000/4000", Duration::from_micros(500), 2),
            ("2000/4001", Duration::from_micros(500), 3),
            ("3/1", Duration::from_nanos(333_333_333), 1),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.interval(), rate.window_seconds()), (interval, window), "{text}");
        }
    }

    #[test]
    fn each_class_has_a_name_and_a_rate_of_its_own() {
        let mut rates = OwnRates::default();
        for (n, class) in (1..).zip(RateClass::ALL) {
            assert_eq!(RateClass::parse(class.as_str()), Ok(class));
            rates = rates.with(class, Some(Rate::new(n, n).unwrap()));
        }
        for (n, class) in (1..).zip(RateClass::ALL) {
            assert_eq!(rates.of(class), Some(Rate::new(n, n).unwrap()));
        }
        assert!(RateClass::parse("Verify").is_err());
    }
}
