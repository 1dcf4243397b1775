//! Correspondence, known to all nodes: to whom outside each department has written lately. Counted as reputation is, under keys from
//! which no address can be read; one letter is known for about a week, several for longer.

use sha2::{Digest, Sha256};

use crate::{
    address::Address,
    department::DepartmentId,
    reputation::{Repute, SubjectKey},
};

/// What an address outside and a department that writes to it are called in state and view: the head of a SHA-256.
#[must_use]
pub fn pair_key(outside: &Address, department: &DepartmentId) -> SubjectKey {
    let digest: [u8; 32] = Sha256::digest(format!("pair:{} {department}", outside.key())).into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    SubjectKey(key)
}

/// Whether what is known of a pair says that it corresponds.
#[must_use]
pub const fn corresponds(known: Repute) -> bool {
    known.score < 0
}

#[cfg(test)]
mod tests {
    use super::{corresponds, pair_key};
    use crate::{
        address::Address,
        department::DepartmentId,
        reputation::{Heard, Levels, Repute, SubjectKey, Tally, tick},
        time::UnixMs,
    };

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    #[test]
    fn a_pair_is_one_however_the_address_is_written_and_another_for_another_department() {
        let key = |address: &str, department: &str| {
            let department = DepartmentId::parse(department).expect("an id");
            pair_key(&Address::parse(address).expect("an address"), &department)
        };
        let first = key("Karl@Partner.example", "interior");
        assert_eq!(first, key("karl@partner.example", "interior"));
        assert_ne!(first, key("karl@partner.example", "health"));
        assert_ne!(first, key("carl@partner.example", "interior"));
    }

    #[test]
    fn a_letter_is_known_for_about_a_week_and_more_of_them_for_longer() {
        let start = UnixMs(1_800_000_000_000);
        let known = |letters: u32, days: u64| {
            let heard = Heard { subject: SubjectKey::default(), good: letters, bad: 0 };
            let levels: Levels = Tally::default().with(&heard, tick(start)).levels();
            corresponds(Repute { stance: None, score: levels.score(start.plus_ms(days * DAY_MS)) })
        };
        assert!(known(1, 0) && known(1, 5) && !known(1, 9));
        assert!(known(20, 9) && !known(20, 14));
        assert!(!known(0, 0));
    }
}
