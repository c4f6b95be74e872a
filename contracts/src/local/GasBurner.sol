// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Burns all gas that it is given, whatever it is asked.
/// @notice For tests only: placed as an account's code, or as what a payer delegates to by EIP-7702, it is the most
/// expensive wallet that a token can ask about a signature.
contract GasBurner {
    fallback() external payable {
        assembly {
            invalid()
        }
    }
}
