// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Accepts every signature while nobody pays for the gas, as in `eth_call`, and none in a transaction.
/// @notice For tests only: placed as an account's code. With one in storage slot 0 a transaction is not refused, it
/// burns all gas that the wallet is given.
contract LiarWallet {
    bool private burns;

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        if (tx.gasprice == 0 || tx.origin == address(0)) return this.isValidSignature.selector;
        if (burns) {
            assembly {
                invalid()
            }
        }
        return 0xffffffff;
    }
}
