// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Many calls in one transaction, each on its own.
/// @notice Stateless, without an owner, and anyone may call it. It keeps nothing: no ether, no tokens, no approvals.
/// Whatever is sent or approved to it belongs to the next caller.
/// @dev Once an item has run, every item of the list has its outcome in the receipt: a log for each that failed
/// or was skipped, none for one that succeeded. That a payment was made is proven by the token's own logs alone: a
/// target that calls `settle` itself adds logs of this contract to the receipt.
contract BatchSettler {
    struct Call {
        address target;
        uint256 gasCap;
        bytes data;
    }

    /// @notice The item ran and reverted or burned its cap, or there is no code at its target.
    event CallFailed(uint256 indexed index);
    /// @notice Less gas was left than the item's cap needs: it never ran.
    event CallSkipped(uint256 indexed index);

    /// @dev What a call costs beyond its cap. By EIP-2929: 2,600 to look at the target, 100 to call it, and 2,600 for
    /// what it is delegated to by EIP-7702. The rest is for our own instructions.
    uint256 private constant CALL_GAS = 6_000;
    /// @dev What reporting an item costs: 1,125 for the log, the rest for our own instructions.
    uint256 private constant REPORT_GAS = 2_000;

    /// @notice Makes the calls in their order. It reverts only for a malformed list, for ether, or when the gas runs
    /// out before the first call.
    function settle(Call[] calldata calls) external {
        for (uint256 i = 0; i < calls.length; ++i) {
            Call calldata item = calls[i];
            bytes calldata data = item.data;
            if (!affordable(item.gasCap, data.length, calls.length - i)) {
                emit CallSkipped(i);
            } else if (!succeeds(item.target, item.gasCap, data)) {
                emit CallFailed(i);
            }
        }
    }

    /// @dev Whether a call would get all of `gasCap`, and leave enough to report `nReports` items even if it burns it.
    function affordable(uint256 gasCap, uint256 nDataBytes, uint256 nReports) private view returns (bool) {
        // Calldata bounds both numbers, so nothing here overflows; the cap, which may be anything, is only compared.
        unchecked {
            // A gas per byte covers copying the data and growing the memory for it, up to 400 KB.
            uint256 reserve = CALL_GAS + nDataBytes + nReports * REPORT_GAS;
            uint256 left = gasleft();
            if (left < reserve) return false;
            uint256 spare = left - reserve;
            // EIP-150: a call gets at most all but one 64th of what is left, silently less than was asked for.
            return spare - spare / 64 >= gasCap;
        }
    }

    function succeeds(address target, uint256 gasCap, bytes calldata data) private returns (bool success) {
        // The EVM lets a call to nothing succeed.
        if (target.code.length == 0) return false;
        // Solidity's own call copies whatever the target returns, at our expense: 200 KB cost 260,000 gas.
        // The data lies in free memory that is not claimed, so that the next item uses it again.
        assembly ("memory-safe") {
            let input := mload(0x40)
            calldatacopy(input, data.offset, data.length)
            success := call(gasCap, target, 0, input, data.length, 0, 0)
        }
    }
}
