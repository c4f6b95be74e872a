// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {BatchSettler} from "../src/BatchSettler.sol";

/// @notice What a batch may find at the other end of a call: it pays, refuses, burns, floods, or calls back.
contract Target {
    error Refused();

    event Paid(uint256 indexed id);

    /// @dev From the first instruction of this contract until `pay` looks at the gas that is left.
    uint256 private constant ENTRY_GAS = 500;

    mapping(uint256 id => uint256 times) public paid;

    /// @notice Insists on getting all of the promised gas.
    function pay(uint256 id, uint256 promised) external {
        require(gasleft() + ENTRY_GAS >= promised, "short of gas");
        paid[id]++;
        emit Paid(id);
    }

    function refuse() external pure {
        revert Refused();
    }

    function returnBomb(uint256 nBytes) external pure {
        assembly {
            return(0, nBytes)
        }
    }

    function revertBomb(uint256 nBytes) external pure {
        assembly {
            revert(0, nBytes)
        }
    }

    /// @notice Starts a batch inside the batch.
    function reenter(BatchSettler.Call[] calldata calls) external {
        BatchSettler(msg.sender).settle(calls);
    }

    /// @notice Starts itself again through the settler until its gas is gone.
    function recurse() external {
        BatchSettler.Call[] memory again = new BatchSettler.Call[](1);
        again[0] = BatchSettler.Call(address(this), gasleft() * 9 / 10, abi.encodeCall(this.recurse, ()));
        BatchSettler(msg.sender).settle(again);
    }
}
