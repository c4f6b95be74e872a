// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {VerificationLens} from "./VerificationLens.sol";

/// @title The lens for endpoints that know no state overrides.
/// @notice An `eth_call` of its creation code, without `to`, gives what `VerificationLens.look` returns.
/// @dev The answer takes the place of the code that a constructor returns. It begins with zero, as EIP-3541 demands of
/// code. EIP-170 limits it to 24,576 bytes, EIP-3860 limits creation code and payments together to 49,152.
contract LensByCreation {
    constructor(VerificationLens.Payment[] memory payments, VerificationLens.Limits memory limits) {
        VerificationLens lens = new VerificationLens();
        (bool success, bytes memory answer) = address(lens).call(abi.encodeCall(lens.look, (payments, limits)));
        assembly ("memory-safe") {
            if success { return(add(answer, 32), mload(answer)) }
            revert(add(answer, 32), mload(answer))
        }
    }
}
