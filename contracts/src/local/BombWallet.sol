// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Answers with 200 KB, which whoever asked may copy at his own expense.
/// @notice For tests only: placed as an account's code. The answer begins with an acceptance; with one in storage slot
/// 0 it is what the wallet reverts with.
contract BombWallet {
    uint256 private constant SIZE = 200_000;

    bool private reverts;

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        bool reverts_ = reverts;
        bytes32 accepted = this.isValidSignature.selector;
        assembly {
            mstore(0, accepted)
            if reverts_ { revert(0, SIZE) }
            return(0, SIZE)
        }
    }
}
