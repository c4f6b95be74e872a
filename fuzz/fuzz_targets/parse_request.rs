//! Any bytes as a request's body: reading them never panics, and gives the same answer for the same words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quittance::{
    domain::UnixTime,
    protocol::{ParseError, VerifyAnswer, parse_request},
    verify::{Factories, terms},
};
use serde_json::Value;

/// When the reference vectors were judged.
const NOW: UnixTime = UnixTime::from_seconds(1_767_225_600);

fuzz_target!(|body: &[u8]| {
    let parsed = parse_request(body);
    // Blanks around the same object say nothing.
    let padded = [b" \n", body, b"\t "].concat();
    let payer = match (&parsed, parse_request(&padded)) {
        (Ok(request), Ok(again)) => {
            assert_eq!(*request, again);
            let payer = request.payment.authorization.payer;
            // What parses can be judged, and judged the same again.
            let judged = terms(request, NOW, &Factories::default());
            assert_eq!(judged, terms(request, NOW, &Factories::default()));
            if let Ok(terms) = &judged {
                assert_eq!(terms.authorization(), &request.payment.authorization);
                assert_eq!(terms.requirements(), &request.requirements);
            }
            let written = serde_json::to_value(VerifyAnswer::valid(payer)).expect("an answer");
            assert_eq!(written["isValid"], true);
            Some(payer)
        }
        (Err(ParseError::Refused(refused)), Err(ParseError::Refused(again))) => {
            assert_eq!(refused.refusal, again.refusal);
            let refusal = refused.refusal.clone();
            let answer = VerifyAnswer::invalid(refusal.reason, refusal.message, refused.payer);
            let written = serde_json::to_value(answer).expect("an answer");
            assert_eq!(written["isValid"], false);
            assert_eq!(written["invalidReason"], refused.refusal.reason.as_str());
            refused.payer
        }
        (Err(ParseError::Malformed(_)), Err(ParseError::Malformed(_))) => None,
        (one, other) => panic!("{one:?} and {other:?}"),
    };
    // Nobody is named as the payer whom the request does not name.
    if let Some(payer) = payer {
        let text = String::from_utf8_lossy(body).to_lowercase();
        let is_named = text.contains(&format!("{payer:#x}")[2..]);
        // A name may also be written with escapes.
        let named = serde_json::from_slice::<Value>(body).map(|value| value.to_string());
        let is_named =
            is_named || named.is_ok_and(|n| n.to_lowercase().contains(&format!("{payer:#x}")[2..]));
        assert!(is_named, "{payer} is named nowhere");
    }
});
