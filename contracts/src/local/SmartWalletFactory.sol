// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SmartWallet} from "./SmartWallet.sol";

/// @title Deploys wallets at addresses that are known before.
/// @notice For tests only. It has no constructor, so that its code can be placed at any address.
contract SmartWalletFactory {
    /// @notice Deploys the wallet of this owner and salt, unless it is there.
    function createAccount(address owner, uint256 salt) external virtual returns (address) {
        return deploy(owner, salt);
    }

    /// @notice Where the wallet of this owner and salt is, or will be.
    function getAddress(address owner, uint256 salt) public view returns (address) {
        bytes32 codeHash = keccak256(bytes.concat(type(SmartWallet).creationCode, abi.encode(owner)));
        // EIP-1014.
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"ff", this, salt, codeHash)))));
    }

    function deploy(address owner, uint256 salt) internal returns (address account) {
        account = getAddress(owner, salt);
        if (account.code.length == 0) new SmartWallet{salt: bytes32(salt)}(owner);
    }
}
