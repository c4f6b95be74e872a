// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPermit2} from "./Permit2.sol";
import {LocalPermit2Proxy} from "./LocalPermit2Proxy.sol";

/// @title Stand-in for x402ExactPermit2Proxy (0x402085c248EeA27D92E8b30b2C58ed07f9E20001) on the local chain.
/// @notice Compatible with the deployed contract's ABI, errors and events; it is not the deployed bytecode,
/// and its gas differs. Never deploy it.
contract X402ExactPermit2Proxy is LocalPermit2Proxy {
    struct Witness {
        address to;
        uint256 validAfter;
    }

    bytes32 public constant WITNESS_TYPEHASH = keccak256("Witness(address to,uint256 validAfter)");
    string public constant WITNESS_TYPE_STRING =
        "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)";

    /// @notice Moves exactly the permitted amount to `witness.to`.
    function settle(
        IPermit2.PermitTransferFrom calldata permit,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external oneAtATime {
        pay(permit, owner, witness, signature);
        emit Settled();
    }

    /// @notice The same, after approving Permit2 with the token's own permit.
    function settleWithPermit(
        EIP2612Permit calldata permit2612,
        IPermit2.PermitTransferFrom calldata permit,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external oneAtATime {
        approvePermit2(permit2612, permit.permitted, owner);
        pay(permit, owner, witness, signature);
        emit SettledWithPermit();
    }

    function pay(
        IPermit2.PermitTransferFrom calldata permit,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) private {
        bytes32 witnessHash = keccak256(abi.encode(WITNESS_TYPEHASH, witness));
        transfer(
            permit,
            permit.permitted.amount,
            owner,
            witness.to,
            witness.validAfter,
            witnessHash,
            WITNESS_TYPE_STRING,
            signature
        );
    }
}
