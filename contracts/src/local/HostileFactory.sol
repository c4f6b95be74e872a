// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SmartWalletFactory} from "./SmartWalletFactory.sol";

/// @title Promises the addresses of `SmartWalletFactory`, and deploys nothing there.
/// @notice For tests only: placed as an account's code, with its way in storage slot 0.
contract HostileFactory is SmartWalletFactory {
    enum Way {
        Burn,
        DoNothing,
        DeployElsewhere
    }

    Way private way;

    function createAccount(address owner, uint256 salt) external override returns (address) {
        if (way == Way.Burn) {
            assembly {
                invalid()
            }
        }
        if (way == Way.DeployElsewhere) deploy(owner, ~salt);
        return getAddress(owner, salt);
    }
}
