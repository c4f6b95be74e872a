// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPermit2} from "./Permit2.sol";
import {LocalPermit2Proxy} from "./LocalPermit2Proxy.sol";

/// @title Stand-in for x402UptoPermit2Proxy (0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002) on the local chain.
/// @notice Compatible with the deployed contract's ABI, errors and events; it is not the deployed bytecode,
/// and its gas differs. Never deploy it.
contract X402UptoPermit2Proxy is LocalPermit2Proxy {
    struct Witness {
        address to;
        address facilitator;
        uint256 validAfter;
    }

    error AmountExceedsPermitted();
    error UnauthorizedFacilitator();

    bytes32 public constant WITNESS_TYPEHASH =
        keccak256("Witness(address to,address facilitator,uint256 validAfter)");
    string public constant WITNESS_TYPE_STRING =
        "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,address facilitator,uint256 validAfter)";

    /// @notice Moves `amount`, at most what is permitted, to `witness.to`. Only `witness.facilitator` may call.
    function settle(
        IPermit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external oneAtATime {
        authorize(permit, amount, witness);
        pay(permit, amount, owner, witness, signature);
        emit Settled();
    }

    /// @notice The same, after approving Permit2 with the token's own permit.
    function settleWithPermit(
        EIP2612Permit calldata permit2612,
        IPermit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external oneAtATime {
        authorize(permit, amount, witness);
        approvePermit2(permit2612, permit.permitted, owner);
        pay(permit, amount, owner, witness, signature);
        emit SettledWithPermit();
    }

    function authorize(IPermit2.PermitTransferFrom calldata permit, uint256 amount, Witness calldata witness)
        private
        view
    {
        require(amount <= permit.permitted.amount, AmountExceedsPermitted());
        require(msg.sender == witness.facilitator, UnauthorizedFacilitator());
    }

    function pay(
        IPermit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) private {
        bytes32 witnessHash = keccak256(abi.encode(WITNESS_TYPEHASH, witness));
        transfer(permit, amount, owner, witness.to, witness.validAfter, witnessHash, WITNESS_TYPE_STRING, signature);
    }
}
