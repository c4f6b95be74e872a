// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A wallet of one key that answers ERC-1271.
/// @notice For tests only. It is deployed by `SmartWalletFactory`, placed as an account's code with the owner in
/// storage slot 0, or what an account delegates to by EIP-7702.
contract SmartWallet {
    /// @dev ERC-1271.
    bytes4 private constant ACCEPTED = 0x1626ba7e;
    bytes4 private constant REFUSED = 0xffffffff;

    address private keyHolder;

    constructor(address keyHolder_) {
        keyHolder = keyHolder_;
    }

    /// @dev An account with a delegation keeps its key, and takes ether as before.
    receive() external payable {}

    /// @notice Accepts the owner's signature over the digest: its 65 bytes `r, s, v`, or `abi.encode(uint256(0), them)`,
    /// as wallets say with which of their keys they signed. A signature that makes no sense is refused, never reverted.
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        return signer(digest, unwrapped(signature)) == owner() ? ACCEPTED : REFUSED;
    }

    /// @notice Who signs for this account. If slot 0 is zero, the account's own key does.
    function owner() public view returns (address) {
        return keyHolder == address(0) ? address(this) : keyHolder;
    }

    function unwrapped(bytes calldata signature) private pure returns (bytes calldata) {
        if (signature.length != 192) return signature;
        // The number of the key, where the bytes begin, and how many they are.
        bytes memory head = abi.encode(uint256(0), uint256(64), uint256(65));
        return keccak256(signature[:96]) == keccak256(head) ? signature[96:161] : signature;
    }

    /// @dev Zero if nobody signed.
    function signer(bytes32 digest, bytes calldata ecdsa) private pure returns (address) {
        if (ecdsa.length != 65) return address(0);
        return ecrecover(digest, uint8(ecdsa[64]), bytes32(ecdsa[:32]), bytes32(ecdsa[32:64]));
    }
}
