// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPermit2} from "../src/local/Permit2.sol";

/// @notice Stands where Permit2 is and remembers what it was asked. The real one is used by the tests of anvil-scripts.
contract RecordingPermit2 {
    uint256 public calls;
    address public token;
    uint256 public permitted;
    uint256 public nonce;
    uint256 public deadline;
    address public to;
    uint256 public requested;
    address public owner;
    bytes32 public witness;
    string public witnessTypeString;
    bytes public signature;
    bytes public callBack;

    /// @notice What to do to the caller in the middle of the next transfer.
    function callBackWith(bytes calldata data) external {
        callBack = data;
    }

    function permitWitnessTransferFrom(
        IPermit2.PermitTransferFrom calldata permit,
        IPermit2.SignatureTransferDetails calldata details,
        address owner_,
        bytes32 witness_,
        string calldata witnessTypeString_,
        bytes calldata signature_
    ) external {
        calls++;
        (token, permitted, nonce, deadline) =
            (permit.permitted.token, permit.permitted.amount, permit.nonce, permit.deadline);
        (to, requested, owner, witness) = (details.to, details.requestedAmount, owner_, witness_);
        (witnessTypeString, signature) = (witnessTypeString_, signature_);
        if (callBack.length == 0) return;
        (bool done, bytes memory answer) = msg.sender.call(callBack);
        if (done) return;
        assembly {
            revert(add(answer, 32), mload(answer))
        }
    }
}

/// @notice A token whose permit does what it was told to do.
contract ObedientToken {
    enum Mood {
        Agree,
        Reason,
        Panic,
        Custom
    }

    error Unwilling(uint256 why);

    Mood private mood;
    address public permittedSpender;
    uint256 public permittedValue;

    constructor(Mood mood_) {
        mood = mood_;
    }

    function permit(address, address spender, uint256 value, uint256, uint8, bytes32, bytes32) external {
        if (mood == Mood.Reason) revert("permit refused");
        if (mood == Mood.Panic) assert(false);
        if (mood == Mood.Custom) revert Unwilling(7);
        (permittedSpender, permittedValue) = (spender, value);
    }
}
