// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPermit2} from "./Permit2.sol";

/// @notice The EIP-2612 entry of a token.
interface IERC2612 {
    function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external;
}

/// @title What the two local x402 proxies share: the checks, the call to Permit2, the optional EIP-2612 permit.
/// @notice For the local chain only. This is not the bytecode that is deployed on public chains: it was
/// written from the published interface, so that a chain without the real proxies answers like one that has them.
/// @dev The runtime code is placed at the canonical address without running a constructor, so there is
/// neither constructor state nor an immutable.
abstract contract LocalPermit2Proxy {
    /// @notice A token's EIP-2612 permit that approves Permit2.
    struct EIP2612Permit {
        uint256 value;
        uint256 deadline;
        bytes32 r;
        bytes32 s;
        uint8 v;
    }

    event Settled();
    event SettledWithPermit();
    event EIP2612PermitFailedWithReason(address indexed token, address indexed owner, string reason);
    event EIP2612PermitFailedWithPanic(address indexed token, address indexed owner, uint256 errorCode);
    event EIP2612PermitFailedWithData(address indexed token, address indexed owner, bytes data);

    error InvalidAmount();
    error InvalidDestination();
    error InvalidOwner();
    /// @dev Never raised here: the address is a constant. It stays in the interface.
    error InvalidPermit2Address();
    error PaymentTooEarly();
    error Permit2612AmountMismatch();
    error ReentrancyGuardReentrantCall();

    /// @notice Permit2, at the same address on every chain.
    IPermit2 public constant PERMIT2 = IPermit2(0x000000000022D473030F116dDEE9F6B43aC78BA3);

    bool private transient settling;

    /// @dev A token may call back while it transfers; it must not start a second settlement then.
    modifier oneAtATime() {
        require(!settling, ReentrancyGuardReentrantCall());
        settling = true;
        _;
        settling = false;
    }

    /// @dev Moves `amount` from `owner` to `to`. The order of the refusals is part of the interface.
    function transfer(
        IPermit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        address to,
        uint256 validAfter,
        bytes32 witnessHash,
        string memory witnessTypeString,
        bytes calldata signature
    ) internal {
        require(amount != 0, InvalidAmount());
        require(owner != address(0), InvalidOwner());
        require(to != address(0), InvalidDestination());
        require(validAfter <= block.timestamp, PaymentTooEarly());
        PERMIT2.permitWitnessTransferFrom(
            permit,
            IPermit2.SignatureTransferDetails(to, amount),
            owner,
            witnessHash,
            witnessTypeString,
            signature
        );
    }

    /// @dev A permit that fails is only reported: the approval may exist already, and someone may have
    /// submitted this very permit before us.
    function approvePermit2(EIP2612Permit calldata approval, IPermit2.TokenPermissions calldata permitted, address owner)
        internal
    {
        require(approval.value == permitted.amount, Permit2612AmountMismatch());
        address token = permitted.token;
        try IERC2612(token).permit(
            owner, address(PERMIT2), approval.value, approval.deadline, approval.v, approval.r, approval.s
        ) {} catch Error(string memory reason) {
            emit EIP2612PermitFailedWithReason(token, owner, reason);
        } catch Panic(uint256 errorCode) {
            emit EIP2612PermitFailedWithPanic(token, owner, errorCode);
        } catch (bytes memory data) {
            emit EIP2612PermitFailedWithData(token, owner, data);
        }
    }
}
